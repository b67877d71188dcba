FROM a
COPY ["a", {"b": 1}, "c"]
