FROM a
RUN cat << EOF > /x
y
EOF
RUN cat <<- 'E F'
	z
	E F
