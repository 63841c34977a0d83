//! SMTP on localhost, forwarded through Microsoft 365.
