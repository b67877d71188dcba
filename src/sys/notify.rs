//! Seccomp user notification.
