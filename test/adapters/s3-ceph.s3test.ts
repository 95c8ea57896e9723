import { s3Contracts } from '../support/s3-contract.ts'

s3Contracts('ceph')
