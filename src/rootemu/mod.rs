//! Root emulation: system call tables, filter, supervisor.
