FROM alpine:3.20
# 70 is the standard uid/gid for "postgres" in Alpine
RUN set -eux; \
	addgroup -g 70 -S postgres; \
	adduser -u 70 -S -D -G postgres -H -h /var/lib/postgresql -s /bin/sh postgres
ENV LANG en_US.utf8
RUN mkdir /docker-entrypoint-initdb.d
ENV PGDATA /var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
