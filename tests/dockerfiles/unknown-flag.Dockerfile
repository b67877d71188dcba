FROM a
COPY --chwon=a b c
