module client

go 1.19

require latchkey v0.0.0

replace latchkey => ../../../client/go
