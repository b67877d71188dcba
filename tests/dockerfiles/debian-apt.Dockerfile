FROM debian:bookworm
RUN set -eux; \
	apt-get update; \
	apt-get install -y --no-install-recommends \
# the comment may stand at the first column
		ca-certificates \
		netbase \
		# or be indented
		tzdata \
	; \
	rm -rf /var/lib/apt/lists/*
