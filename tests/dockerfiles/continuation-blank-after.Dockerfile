FROM a
RUN b \  	 
  c \	


   
  d
RUN e
