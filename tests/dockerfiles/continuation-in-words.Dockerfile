FROM a
EN\
V A=b\
c D="e\
f"
RUN ec\
ho 'g\
h'
LAB\
# comment
EL x=y
