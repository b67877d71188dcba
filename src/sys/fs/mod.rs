//! Files below directory descriptors: openat2, extended attributes, reflinks.
