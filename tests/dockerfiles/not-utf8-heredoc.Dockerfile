FROM a
RUN <<EOF
# a
echo é
EOF
