//! Two running processes, blue and green, and a reverse proxy in front of them that sends every request where the flag
//! `backend` says. See the README.
#![allow(clippy::print_stdout, reason = "a load says what came of it")]

mod load;
mod proxy;
mod serve;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

/// A service that runs twice, and a proxy that switches between the two as a Guidon flag says.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Answer requests with a colour
    Serve {
        /// What to answer
        #[arg(long)]
        colour: String,
        /// Port on 127.0.0.1
        #[arg(long)]
        port: u16,
    },
    /// Pass requests on to the backend that the flag says
    Proxy(proxy::Options),
    /// Make requests until standard input ends, and count who answered them
    Load {
        /// Where to send them
        #[arg(long)]
        to: SocketAddr,
        /// Requests a second
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
    },
}

/// Why a role ends.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Connect(#[from] guidon_sdk::ConnectError),
    #[error("{0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    #[error("{0} requests were not answered")]
    Unanswered(u64),
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match Options::parse().role {
        Role::Serve { colour, port } => serve::run(colour, SocketAddr::from(([127, 0, 0, 1], port))).await,
        Role::Proxy(options) => proxy::run(options).await,
        Role::Load { to, rate } => load::run(to, rate).await,
    }
}
