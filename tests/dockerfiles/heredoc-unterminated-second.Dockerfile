FROM a
RUN <<A <<B
x
A
y
