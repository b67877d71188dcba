FROM a
CMD ["a", "b c", "\u00e4\n"]
CMD [ ]
CMD   [ "x" ]  
CMD ['a', 'b']
CMD ["a"] b
CMD [ -f x ] && y
CMD
ENTRYPOINT []
ENTRYPOINT exec top -b
RUN ["a"]
RUN []
VOLUME ["/a", "/b"]
VOLUME /c /d
COPY ["a b", "c", "/d/"]
SHELL ["x"]
