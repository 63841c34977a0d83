//! What text alone can tell: charts as Helm renders them, alerts as promtool plays them, pages as they are written. No cluster.

mod architecture;
mod chart_broker;
mod chart_gateway;
mod chart_gateway_smtp;
mod chart_mailboxes;
mod chart_objects;
mod chart_rbac;
mod chart_templates;
mod chart_values;
mod docs_links;
mod licenses;
mod monitor_rules;
mod readme;
mod security_page;
mod setup_sets;
