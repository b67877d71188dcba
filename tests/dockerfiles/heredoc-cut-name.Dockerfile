FROM a
RUN cat <<EO\
F
x
EOF
