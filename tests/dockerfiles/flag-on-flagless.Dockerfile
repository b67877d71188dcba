FROM a
CMD --help
