import { s3Contract } from '../support/s3-contract.ts'

s3Contract('ceph', 'http', 'millrace')
