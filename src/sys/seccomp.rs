//! Seccomp filters: assembling and installing.
