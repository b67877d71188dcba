# syntax=x
# escape=^
FROM a
