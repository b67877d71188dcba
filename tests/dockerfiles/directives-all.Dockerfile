# syntax = docker/dockerfile:1.7-labs  
#check=skip=JSONArgsRecommended;error=true
#	EsCaPe	=	\
FROM a
