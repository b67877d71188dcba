#
#no space
	# indented
FROM a # not a comment
   # indented too \
RUN b # goes to the shell
