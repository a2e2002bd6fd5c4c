// An OpenID provider with two people, for tests: `node provider.mjs FOLDER`, where FOLDER has oidc-provider installed.
// Prints `listening URL` and serves until it is ended. People sign in by POST /interaction/UID/login with `login=NAME`.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = process.argv[2];
const { default: Provider, interactionPolicy } = await import(pathToFileURL(join(folder, 'node_modules/oidc-provider/lib/index.js')).href);

const PEOPLE = {
  ada: { name: 'Ada Lovelace', email: 'ada@example.com', groups: ['release', 'staff'], amr: ['pwd', 'otp'] },
  grace: { name: 'Grace Hopper', email: 'grace@example.com', groups: ['staff'], amr: ['pwd'] },
};

// A program on the person's own machine would be asked about each time: there is nobody to ask here.
const policy = interactionPolicy.base();
policy.get('consent').checks.remove('native_client_prompt');

let provider;
let issuer;
const server = createServer((request, response) => {
  serve(request, response).catch((error) => {
    console.error(error);
    response.writeHead(500).end();
  });
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
issuer = `http://127.0.0.1:${server.address().port}`;

provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'guidon',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code'],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/callback'],
    },
  ],
  claims: {
    openid: ['sub', 'acr', 'amr', 'auth_time'],
    profile: ['name', 'groups'],
    email: ['email', 'email_verified'],
  },
  conformIdTokenClaims: false,
  cookies: { keys: ['a key for tests'] },
  features: { devInteractions: { enabled: false } },
  interactions: { policy, url: (_, interaction) => `/interaction/${interaction.uid}` },
  pkce: { required: () => true },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => {
      const { name, email, groups } = PEOPLE[id];
      return { sub: id, name, email, email_verified: true, groups };
    },
  }),
  // The client is the organisation's own: nobody is asked whether it may know them.
  loadExistingGrant: async (context) => {
    const { session, client } = context.oidc;
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid profile email');
    await grant.save();
    return grant;
  },
});

async function serve(request, response) {
  const { pathname } = new URL(request.url, issuer);
  if (request.method === 'POST' && /^\/interaction\/[^/]+\/login$/.test(pathname)) {
    let body = '';
    for await (const part of request) body += part;
    const id = new URLSearchParams(body).get('login');
    if (!(id in PEOPLE)) return response.writeHead(403).end();
    const login = { accountId: id, amr: PEOPLE[id].amr };
    return provider.interactionFinished(request, response, { login }, { mergeWithLastSubmission: false });
  }
  return provider.callback()(request, response);
}

console.log(`listening ${issuer}`);
