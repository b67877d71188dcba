FROM a
COPY << EOF /x
y
EOF
