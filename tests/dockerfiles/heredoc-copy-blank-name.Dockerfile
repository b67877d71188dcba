FROM a
COPY <<'E F' /x
y
E F
