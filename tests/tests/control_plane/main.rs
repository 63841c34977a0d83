//! What an API server decides, or what only one shows: a control plane for each scenario, no node.

mod admit_policy;
mod admit_routes;
mod chart_enforcer;
mod chart_gateway;
mod chart_lifecycle;
mod chart_rights;
mod inject_namespaces;
mod inject_reach;
mod lent;
mod monitor_prometheus;
mod operator_api_server;
mod operator_broker;
mod operator_certificates;
mod operator_dns;
mod operator_given;
mod operator_leader;
mod operator_ledger_store;
mod operator_malformed;
mod operator_registration;
mod operator_rollout;
mod operator_scope;
mod operator_status;
mod operator_waited_for;
mod plugin;
