from A as B
FroM b
run c
cOpY d e
