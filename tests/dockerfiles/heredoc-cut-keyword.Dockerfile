FROM a
R\
UN cat <<EOF \

x
EOF
ON\
BUILD CO\
# comment
PY <<A /x
1
A
