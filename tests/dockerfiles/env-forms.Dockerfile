FROM a
ENV A b
ENV A   b   c "d"  e
ENV A=b C="d e" F='g h' I=j\ k L= M="" N=a=b
ENV O="p $A ${B:-c}" Q=\"r\"
ENV S="t'u" V='w"x'
ENV Y="unclosed z=1
ENV a\ b=c
