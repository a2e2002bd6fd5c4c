//! The command line: `guidon serve`, and everything that can be asked of a running server.
//!
//! Commands speak the same API as everybody else; none reaches into the store of a running server.

mod account;
mod agent;
mod anomaly;
mod api;
mod assignments;
mod audit;
mod backup;
mod change;
mod check;
mod config;
mod drift;
mod environment;
mod error;
mod export;
mod flag;
mod freeze;
mod health;
mod incident;
mod instances;
mod issuer;
mod journal;
mod login;
mod loopback;
mod output;
mod plan;
mod plan_text;
mod policy;
mod privacy;
mod profile;
mod progress;
mod promote;
mod prompt;
mod put_file;
mod release;
mod replace;
mod request;
mod role;
mod rollback;
mod segment;
mod serve;
mod service_account;
mod session;
mod session_file;
mod show;
mod store;
mod token;
mod trail;
mod transfer;
mod webhook;
pub mod yaml;

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use api::Api;
pub use error::CliError;
use output::Output;
use profile::ServerOptions;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 unexpected, 2 command line (or drift, of `guidon drift`), 3 server not reached, \
4 credential refused, 5 not found, 6 invalid request or files, 7 changed in between, 8 store damaged, 9 not now, try again, \
10 a rollback drill did not pass, \
11 a release that was followed was taken back or aborted.";

/// Feature flags and controlled releases for code that an AI wrote.
#[derive(Debug, Parser)]
#[command(name = "guidon", version, about, after_help = EXIT_CODES, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    server: ServerOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(Box<serve::ServeArgs>),
    /// Say whether the server is ready to serve: exit code 0, or 3 or 9
    Health,
    /// The server's configuration: check it, show where each value comes from
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Flags: list, show, create, switch, roll out, explain
    #[command(subcommand)]
    Flag(flag::FlagCommand),
    /// Segments: reusable populations of one environment
    #[command(subcommand)]
    Segment(segment::SegmentCommand),
    /// The journal: every change ever made
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// The audit trail: changes, refusals and sign-ins
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Forget a person: who somebody is, or a targeting key
    #[command(subcommand)]
    Privacy(privacy::PrivacyCommand),
    /// Take a backup of a whole store, of a running server or of a stopped one; check one that was taken
    Backup(backup::BackupArgs),
    /// Make a store from a backup
    Restore(backup::RestoreArgs),
    /// Carry out a decision about a damaged folder of a store; the report of the damage names the choices
    Repair(store::RepairArgs),
    /// The assignment log: who got which variation
    #[command(subcommand)]
    Assignments(assignments::AssignmentsCommand),
    /// Environments of the project
    #[command(subcommand)]
    Env(environment::EnvCommand),
    /// SDK keys: the credentials of applications
    #[command(subcommand)]
    SdkKey(environment::SdkKeyCommand),
    /// Make a change that a file describes
    Change(Box<change::ChangeArgs>),
    /// Roll a flag back; `rollback drill` rehearses it
    Rollback(Box<rollback::RollbackArgs>),
    /// Releases: give more and more people a variation, guarded; start, follow, move and stop them
    #[command(subcommand)]
    Release(release::ReleaseCommand),
    /// Incidents: what the server did by itself, for a person to look at and close
    #[command(subcommand)]
    Incident(incident::IncidentCommand),
    /// Compare configuration files with the server and show what applying them would change
    Plan(plan::PlanArgs),
    /// Apply configuration files, or a saved plan, as one change
    Apply(plan::ApplyArgs),
    /// Write the configuration on the server to files
    Export(export::ExportArgs),
    /// Make one environment serve flags as another does
    Promote(promote::PromoteArgs),
    /// Find what differs from tier to tier, or between files and the server
    Drift(drift::DriftArgs),
    /// Change requests: changes that others have to agree to
    #[command(subcommand)]
    Request(request::RequestCommand),
    /// Freezes: times in which an environment is not changed
    #[command(subcommand)]
    Freeze(freeze::FreezeCommand),
    /// Reviews of changes that were made in an emergency
    #[command(subcommand)]
    Review(freeze::ReviewCommand),
    /// Projects
    #[command(subcommand)]
    Project(environment::ProjectCommand),
    /// Accounts of people
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Sign in; later commands act as you
    Login(login::LoginArgs),
    /// Sign out
    Logout,
    /// Show who you are and what you may do
    Whoami,
    /// Prove your second factor again, for what needs a fresh one
    Factor,
    /// Where you are signed in: list, and sign out elsewhere
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// AI agents: register, list, renew, disable
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Service accounts: programs of yours, such as deployment pipelines
    #[command(subcommand)]
    ServiceAccount(service_account::ServiceAccountCommand),
    /// Roles: who may do what where
    #[command(subcommand)]
    Role(role::RoleCommand),
    /// Tokens: credentials of service accounts and AI agents
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Issuers whose identity tokens buy tokens, for CI
    #[command(subcommand)]
    Issuer(issuer::IssuerCommand),
    /// Connected SDK instances: which build each runs, and which differ
    Instances(instances::InstancesArgs),
    /// Webhooks: who is told what happens in the project
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// The policies: what decides, and why
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Anomaly detection: score it on labelled series
    #[command(subcommand)]
    Anomaly(anomaly::AnomalyCommand),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let output = Output::new(cli.server.json);
    match run(cli, &matches, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, &output);
            error.exit_code()
        }
    }
}

fn run(cli: Cli, matches: &ArgMatches, output: &Output) -> Result<(), CliError> {
    let api = || Api::new(cli.server.target()?);
    // What came from where, which the parsed form does not say any more.
    let own = matches.subcommand().map_or(matches, |(_, own)| own);
    match cli.command {
        Command::Serve(_) => serve::run(own),
        Command::Health => health::run(&Api::without_credential(cli.server.target()?)?, output),
        Command::Config(command) => config::run(&command, own, output),
        Command::Flag(command) => flag::run(command, &api()?, output),
        Command::Segment(command) => segment::run(command, &api()?, output),
        Command::Journal(command) => journal::run(command, api, output),
        Command::Audit(command) => audit::run(command, api, output),
        Command::Privacy(command) => privacy::run(command, &api()?, output),
        Command::Backup(args) => backup::run(&args, api, output),
        Command::Restore(args) => backup::restore(&args, output),
        Command::Repair(args) => store::repair(&args, output),
        Command::Assignments(command) => assignments::run(command, &api()?, output),
        Command::Env(command) => environment::run_env(command, &api()?, output),
        Command::SdkKey(command) => environment::run_sdk_key(command, &api()?, output),
        Command::Change(args) => change::run(&args, &api()?, output),
        Command::Rollback(args) => rollback::run(*args, &api()?, output),
        Command::Release(command) => release::run(command, api, output),
        Command::Incident(command) => incident::run(command, &api()?, output),
        Command::Plan(args) => plan::plan(&args, &api()?, output),
        Command::Apply(args) => plan::apply(&args, &api()?, output),
        Command::Export(args) => export::run(&args, &api()?, output),
        Command::Promote(args) => promote::run(&args, &api()?, output),
        Command::Drift(args) => drift::run(&args, &api()?, output),
        Command::Request(command) => request::run(command, &api()?, output),
        Command::Freeze(command) => freeze::run_freeze(command, &api()?, output),
        Command::Review(command) => freeze::run_review(command, &api()?, output),
        Command::Project(command) => environment::run_project(command, &api()?, output),
        Command::Account(command) => account::run(command, || cli.server.target(), output),
        Command::Login(args) => login::login(&args, cli.server.target()?, output),
        Command::Logout => login::logout(cli.server.target()?, output),
        Command::Whoami => login::whoami(&api()?, output),
        Command::Factor => login::factor(&api()?, output),
        Command::Session(command) => session::run(command, &api()?, output),
        Command::Agent(command) => agent::run(command, &api()?, output),
        Command::ServiceAccount(command) => service_account::run(command, &api()?, output),
        Command::Role(command) => role::run(command, &api()?, output),
        Command::Token(command) => token::run(command, api, || Api::without_credential(cli.server.target()?), output),
        Command::Issuer(command) => issuer::run(command, &api()?, output),
        Command::Instances(args) => instances::run(&args, &api()?, output),
        Command::Webhook(command) => webhook::run(command, &api()?, output),
        Command::Policy(command) => policy::run(command, api, output),
        Command::Anomaly(command) => anomaly::run(command, output),
    }
}

/// Says on standard error why the command failed.
fn report(error: &CliError, output: &Output) {
    if matches!(error, CliError::BrokenPipe) {
        return;
    }
    let mut stderr = std::io::stderr().lock();
    // Nobody is left to tell if standard error is gone too.
    let _ = if output.is_json() {
        writeln!(stderr, "{}", error.document())
    } else {
        writeln!(stderr, "guidon: {}", output::harmless(&error.to_string(), '\n'))
    };
}

#[cfg(test)]
mod audit_tests;
#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
