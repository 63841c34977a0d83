//! What only a node shows: pods that run, on one node that the scenarios share or on one of their own.

mod inject_isolation;
mod inject_users;
mod monitor_discovery;
mod plugin;
mod relay_changes;
mod relay_clients;
mod relay_commands;
mod relay_deleted;
mod relay_drain;
mod relay_gateway;
mod relay_graph;
mod relay_jobs;
mod relay_outages;
mod relay_port_25;
mod relay_queue;
mod relay_secrets;
mod release_gateway;
mod release_ipv6;
mod release_lent;
mod release_lifecycle;
mod release_shared;
mod simulator_restart;
mod status_wrong_setups;
