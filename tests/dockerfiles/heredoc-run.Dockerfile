FROM a
RUN <<EOF
apt-get update
# not a comment
  apt-get install "x" \
    y
EOF
RUN <<-EOT
	tabs
		more
	EOT
RUN <<'EOF' cat
$x
EOF
RUN python3 <<PY && echo done > /x
print("hello")
PY
RUN <<EOF
#!/usr/bin/env python3
print(1)
EOF
RUN <<EOF
EOF
