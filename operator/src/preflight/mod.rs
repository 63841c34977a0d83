//! Looks at what the accepted domains of routes publish in DNS, and says what is missing: the condition `DnsPublished`.
//!
//! ```text
//!  routes, egress addresses ─► need ─► rounds ──► known ─► examine (spf, dkim, dmarc, MX) ─► finding ─► verdict
//!                             (pure)    (I/O)               (pure)                           (pure)     (pure)
//!                                         │ asks name servers until examine wants no more           │
//!                                         └─────────────────────► observations ◄───────────────────────┘
//!                                                                    ▲ read by the controller
//! ```
//!
//! Advice only. Invariants: no reconciliation waits for DNS, and no mail; the number of questions for one domain is
//! bounded, and so is what is stored of the answers; a name server that does not answer makes the condition Unknown, never False.

pub mod dmarc;
pub mod examine;
pub mod finding;
pub mod known;
pub mod need;
pub mod observations;
pub mod rounds;
pub mod spf;
pub mod verdict;
