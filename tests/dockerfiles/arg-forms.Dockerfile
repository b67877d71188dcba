ARG A
ARG A=
ARG A=b C D="e f" G='h i' J=k\ l
FROM a
ARG M="n
ARG "o p"=q
