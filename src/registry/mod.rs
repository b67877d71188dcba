//! OCI distribution over HTTP; the only module that names the HTTP client.
