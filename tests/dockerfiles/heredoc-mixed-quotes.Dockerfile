FROM a
RUN cat <<E"O"F
y
EOF
