FROM a
RUN cat <<EOF>/x
y
EOF
