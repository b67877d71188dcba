FROM a
RUN cat <<EOF \
  # comment
  > /x \
  && echo <<-E2
one
EOF
two
	E2
RUN echo \
<<EOF
x
EOF
