//! The API by route, on a real server.

mod access;
mod changes;
mod command_line;
mod doors;
mod people;
mod plans;
mod reading;
mod requests;
mod sdk_keys;
mod secrets;
mod serving;
mod sight;
mod trail;
