FROM a
ONBUILD RUN --network=none <<EOF
x
EOF
ONBUILD COPY <<A <<B /c/
1
A
2
B
onbuild run d \
  e
ONBUILD ENV a=b
