// Ends a connection and resets it at once, as the fault proxy does where a client leaves in the moment of a reset. It
// has to exit by itself. test/support/fault-proxy.test.ts starts it.
import * as net from 'node:net'
import { reset } from './fault-proxy.ts'

const server = net.createServer((socket) => {
  socket.on('error', (error) => console.log(error.message))
  socket.end()
  reset(socket)
  server.close()
})
server.listen(0, '127.0.0.1', () => {
  const client = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1')
  client.on('error', () => {}).resume()
})
process.on('exit', () => console.log('nothing is left to do'))
