#syntax=x
#syntax=y
FROM a
