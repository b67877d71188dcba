FROM a
COPY <<\EOF "<<E" /x
y
EOF
