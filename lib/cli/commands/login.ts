import { type Command, Option } from 'commander'
import { wholeNumber } from '../options.ts'
import type { Runner } from '../run.ts'

/** Adds `millrace login`. */
export function addLogin(program: Command, run: Runner): void {
  program
    .command('login')
    .description('Sign in to Google Drive or Dropbox, and keep what signs in from then on.')
    .argument('<provider>', 'google-drive or dropbox')
    .option('--client-id <id>', "the app's id (else MILLRACE_GOOGLE_CLIENT_ID or MILLRACE_DROPBOX_CLIENT_ID)")
    .option('--client-secret-file <file>', "file with the app's secret (else MILLRACE_…_CLIENT_SECRET, else a prompt)")
    .option('--access <name>', 'google-drive: file (only what millrace makes), appdata (hidden), full; dropbox: files')
    .option('--paste', 'for a machine without a browser: paste the code, or the address that the browser ends at')
    .option('--port <n>', 'the port on loopback that the browser comes back to (default: any)', wholeNumber)
    .option('-o, --output <file>', 'where to keep it, mode 0600 (default: ~/.config/millrace/PROVIDER.json)')
    .option('--print', 'print the refresh token instead of keeping it')
    .addOption(new Option('--authorize-url <url>').hideHelp())
    .addOption(new Option('--token-url <url>').hideHelp())
    .option('--json', 'one JSON object a line on stdout')
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace login google-drive --client-id 1234.apps.googleusercontent.com\n  $ millrace login dropbox --client-id abcd1234 --paste',
    )
    .action((provider, options) =>
      run(options, async (invocation) =>
        (await import('../work/login.ts')).loginCommand(provider, options, invocation),
      ),
    )
}
