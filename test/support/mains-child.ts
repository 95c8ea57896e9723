// Runs the command several times in one process, which saves the start of each: the arguments of all are in the first
// argument as JSON. The exit codes go to file descriptor 3 as JSON.
import { writeFileSync } from 'node:fs'
import { main } from '../../lib/cli/main.ts'

const codes: number[] = []
for (const args of JSON.parse(process.argv[2] as string) as string[][]) codes.push(await main(args))
writeFileSync(3, JSON.stringify(codes))
