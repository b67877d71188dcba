FROM a
RUN <<A cat <<-"B" - 3<<'C'
B
A
	A
	C
	B
B
C
RUN echo
