//! The API by route, on a real server.

mod access;
mod as_code;
mod backup;
mod changes;
mod command_line;
mod configuration;
mod doors;
mod drill;
mod instances;
mod people;
mod plans;
mod reading;
mod releases;
mod requests;
mod sdk_keys;
mod secrets;
mod serving;
mod sight;
mod trail;
mod webhooks;
