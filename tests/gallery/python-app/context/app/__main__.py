import idna
print("idna", idna.__version__, "says", idna.encode("bücher").decode())
