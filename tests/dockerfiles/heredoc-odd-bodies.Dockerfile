FROM a
RUN <<EOF
EOF 
 EOF
EOFx
# escape=`
FROM b \
\
EOF
RUN <<X.Y-Z_1
X.Y
X.Y-Z_1
RUN <<$VAR
$VAR
