// conv2d_kernel, 3x3 in fp16, lowered for Ascend910B2 by the front end of triton-ascend 3.2.0
// made from code 88264a0f5e7e by python -m deskocr_kit.kernel_evidence.shown
#map = affine_map<(d0) -> (d0)>
module {
  func.func @conv2d_kernel(%arg0: memref<?xi8>, %arg1: memref<?xi8>, %arg2: memref<?xf16> {tt.tensor_kind = 0 : i32}, %arg3: memref<?xf16> {tt.tensor_kind = 0 : i32}, %arg4: memref<?xf16>, %arg5: memref<?xf16> {tt.tensor_kind = 1 : i32}, %arg6: i32, %arg7: i32, %arg8: i32, %arg9: i32, %arg10: i32, %arg11: i32, %arg12: i32, %arg13: i32, %arg14: i32, %arg15: i32, %arg16: i32, %arg17: i32, %arg18: i32, %arg19: i32, %arg20: i32, %arg21: i32, %arg22: i32, %arg23: i32, %arg24: i32, %arg25: i32, %arg26: i32) attributes {SyncBlockLockArgIdx = 0 : i64, WorkspaceArgIdx = 1 : i64, global_kernel = "local", mix_mode = "mix", parallel_mode = "simd"} {
    %c64_i32 = arith.constant 64 : i32
    %c0_i32 = arith.constant 0 : i32
    %c32_i32 = arith.constant 32 : i32
    %cst = arith.constant 0.000000e+00 : f16
    %c3_i32 = arith.constant 3 : i32
    %c9_i32 = arith.constant 9 : i32
    %c32 = arith.constant 32 : index
    %c64 = arith.constant 64 : index
    %c1 = arith.constant 1 : index
    %c0 = arith.constant 0 : index
    %cst_0 = arith.constant 0.000000e+00 : f32
    %0 = tensor.empty() : tensor<64x64xf32>
    %1 = linalg.fill ins(%cst_0 : f32) outs(%0 : tensor<64x64xf32>) -> tensor<64x64xf32>
    %2 = tensor.empty() : tensor<64x32xf16>
    %3 = linalg.fill ins(%cst : f16) outs(%2 : tensor<64x32xf16>) -> tensor<64x32xf16>
    %4 = tensor.empty() : tensor<64x32xi32>
    %5 = linalg.fill ins(%c0_i32 : i32) outs(%4 : tensor<64x32xi32>) -> tensor<64x32xi32>
    %6 = tensor.empty() : tensor<32xi32>
    %7 = linalg.fill ins(%c3_i32 : i32) outs(%6 : tensor<32xi32>) -> tensor<32xi32>
    %8 = arith.muli %arg24, %c64_i32 : i32
    %9 = tensor.empty() : tensor<64xi32>
    %10 = linalg.generic {indexing_maps = [#map], iterator_types = ["parallel"]} outs(%9 : tensor<64xi32>) {
    ^bb0(%out: i32):
      %55 = linalg.index 0 : index
      %56 = arith.index_cast %55 : index to i32
      linalg.yield %56 : i32
    } -> tensor<64xi32>
    %11 = linalg.fill ins(%8 : i32) outs(%9 : tensor<64xi32>) -> tensor<64xi32>
    %12 = arith.addi %11, %10 : tensor<64xi32>
    %13 = arith.muli %arg25, %c64_i32 : i32
    %14 = arith.muli %arg11, %arg12 : i32
    %15 = linalg.fill ins(%arg12 : i32) outs(%9 : tensor<64xi32>) -> tensor<64xi32>
    %16 = arith.divsi %12, %15 : tensor<64xi32>
    %17 = linalg.fill ins(%arg11 : i32) outs(%9 : tensor<64xi32>) -> tensor<64xi32>
    %18 = arith.remsi %16, %17 : tensor<64xi32>
    %19 = linalg.fill ins(%arg13 : i32) outs(%9 : tensor<64xi32>) -> tensor<64xi32>
    %20 = arith.muli %18, %19 : tensor<64xi32>
    %21 = linalg.fill ins(%arg15 : i32) outs(%9 : tensor<64xi32>) -> tensor<64xi32>
    %22 = arith.subi %20, %21 : tensor<64xi32>
    %23 = arith.remsi %12, %15 : tensor<64xi32>
    %24 = linalg.fill ins(%arg14 : i32) outs(%9 : tensor<64xi32>) -> tensor<64xi32>
    %25 = arith.muli %23, %24 : tensor<64xi32>
    %26 = linalg.fill ins(%arg16 : i32) outs(%9 : tensor<64xi32>) -> tensor<64xi32>
    %27 = arith.subi %25, %26 : tensor<64xi32>
    %28 = linalg.generic {indexing_maps = [#map], iterator_types = ["parallel"]} outs(%6 : tensor<32xi32>) {
    ^bb0(%out: i32):
      %55 = linalg.index 0 : index
      %56 = arith.index_cast %55 : index to i32
      linalg.yield %56 : i32
    } -> tensor<32xi32>
    %broadcasted = linalg.broadcast ins(%22 : tensor<64xi32>) outs(%4 : tensor<64x32xi32>) dimensions = [1] 
    %broadcasted_1 = linalg.broadcast ins(%27 : tensor<64xi32>) outs(%4 : tensor<64x32xi32>) dimensions = [1] 
    %29 = linalg.fill ins(%arg6 : i32) outs(%9 : tensor<64xi32>) -> tensor<64xi32>
    %30 = arith.cmpi slt, %12, %29 : tensor<64xi32>
    %31 = linalg.fill ins(%arg8 : i32) outs(%6 : tensor<32xi32>) -> tensor<32xi32>
    %32 = tensor.empty() : tensor<64x32xi1>
    %broadcasted_2 = linalg.broadcast ins(%30 : tensor<64xi1>) outs(%32 : tensor<64x32xi1>) dimensions = [1] 
    %33 = linalg.fill ins(%arg9 : i32) outs(%4 : tensor<64x32xi32>) -> tensor<64x32xi32>
    %34 = linalg.fill ins(%arg10 : i32) outs(%4 : tensor<64x32xi32>) -> tensor<64x32xi32>
    %35 = arith.index_cast %13 : i32 to index
    %36 = arith.index_cast %arg8 : i32 to index
    %37 = arith.muli %35, %36 : index
    %38 = scf.for %arg27 = %c0_i32 to %arg8 step %c32_i32 iter_args(%arg28 = %1) -> (tensor<64x64xf32>)  : i32 {
      %55 = linalg.fill ins(%arg27 : i32) outs(%6 : tensor<32xi32>) -> tensor<32xi32>
      %56 = arith.addi %55, %28 : tensor<32xi32>
      %57 = arith.divsi %56, %7 : tensor<32xi32>
      %58 = arith.remsi %57, %7 : tensor<32xi32>
      %broadcasted_3 = linalg.broadcast ins(%58 : tensor<32xi32>) outs(%4 : tensor<64x32xi32>) dimensions = [0] 
      %59 = arith.addi %broadcasted, %broadcasted_3 : tensor<64x32xi32>
      %60 = arith.remsi %56, %7 : tensor<32xi32>
      %broadcasted_4 = linalg.broadcast ins(%60 : tensor<32xi32>) outs(%4 : tensor<64x32xi32>) dimensions = [0] 
      %61 = arith.addi %broadcasted_1, %broadcasted_4 : tensor<64x32xi32>
      %62 = arith.cmpi slt, %56, %31 : tensor<32xi32>
      %broadcasted_5 = linalg.broadcast ins(%62 : tensor<32xi1>) outs(%32 : tensor<64x32xi1>) dimensions = [0] 
      %63 = arith.andi %broadcasted_2, %broadcasted_5 : tensor<64x32xi1>
      %64 = arith.cmpi sge, %59, %5 : tensor<64x32xi32>
      %65 = arith.andi %63, %64 : tensor<64x32xi1>
      %66 = arith.cmpi slt, %59, %33 : tensor<64x32xi32>
      %67 = arith.andi %65, %66 : tensor<64x32xi1>
      %68 = arith.cmpi sge, %61, %5 : tensor<64x32xi32>
      %69 = arith.andi %67, %68 : tensor<64x32xi1>
      %70 = arith.cmpi slt, %61, %34 : tensor<64x32xi32>
      %71 = arith.andi %69, %70 : tensor<64x32xi1>
      %72 = scf.for %arg29 = %c0 to %c64 step %c1 iter_args(%arg30 = %2) -> (tensor<64x32xf16>) {
        %92 = scf.for %arg31 = %c0 to %c32 step %c1 iter_args(%arg32 = %arg30) -> (tensor<64x32xf16>) {
          %93 = arith.index_cast %arg29 : index to i32
          %94 = arith.addi %8, %93 : i32
          %95 = arith.divsi %94, %14 : i32
          %96 = arith.muli %95, %arg17 : i32
          %97 = arith.index_cast %arg31 : index to i32
          %98 = arith.addi %arg27, %97 : i32
          %99 = arith.divsi %98, %c9_i32 : i32
          %100 = arith.muli %99, %arg18 : i32
          %101 = arith.addi %96, %100 : i32
          %102 = arith.divsi %94, %arg12 : i32
          %103 = arith.remsi %102, %arg11 : i32
          %104 = arith.muli %103, %arg13 : i32
          %105 = arith.subi %104, %arg15 : i32
          %106 = arith.divsi %98, %c3_i32 : i32
          %107 = arith.remsi %106, %c3_i32 : i32
          %108 = arith.addi %105, %107 : i32
          %109 = arith.muli %108, %arg19 : i32
          %110 = arith.addi %101, %109 : i32
          %111 = arith.remsi %94, %arg12 : i32
          %112 = arith.muli %111, %arg14 : i32
          %113 = arith.subi %112, %arg16 : i32
          %114 = arith.remsi %98, %c3_i32 : i32
          %115 = arith.addi %113, %114 : i32
          %116 = arith.muli %115, %arg20 : i32
          %117 = arith.addi %110, %116 : i32
          %118 = arith.index_cast %117 : i32 to index
          %reinterpret_cast_9 = memref.reinterpret_cast %arg2 to offset: [%118], sizes: [1], strides: [1] : memref<?xf16> to memref<1xf16, strided<[1], offset: ?>>
          %119 = memref.load %reinterpret_cast_9[%c0] : memref<1xf16, strided<[1], offset: ?>>
          %inserted = tensor.insert %119 into %arg32[%arg29, %arg31] : tensor<64x32xf16>
          scf.yield {DiscreteMemAccess} %inserted : tensor<64x32xf16>
        } {ExtractedLoadOrStore}
        scf.yield %92 : tensor<64x32xf16>
      } {ExtractedLoadOrStore}
      %73 = arith.select %71, %72, %3 : tensor<64x32xi1>, tensor<64x32xf16>
      %74 = arith.index_cast %arg27 : i32 to index
      %75 = arith.addi %74, %37 : index
      %reinterpret_cast_6 = memref.reinterpret_cast %arg3 to offset: [%75], sizes: [32, 64], strides: [1, %36] : memref<?xf16> to memref<32x64xf16, strided<[1, ?], offset: ?>>
      %alloc = memref.alloc() : memref<32x64xf16>
      %76 = arith.addi %74, %c32 : index
      %77 = arith.maxsi %74, %36 : index
      %78 = arith.minsi %76, %77 : index
      %79 = arith.subi %78, %74 : index
      %80 = arith.addi %35, %c64 : index
      %81 = arith.index_cast %arg7 : i32 to index
      %82 = arith.maxsi %35, %81 : index
      %83 = arith.minsi %80, %82 : index
      %84 = arith.subi %83, %35 : index
      %85 = arith.minsi %79, %c32 : index
      %86 = arith.minsi %84, %c64 : index
      %87 = arith.cmpi slt, %85, %c32 : index
      %88 = arith.cmpi slt, %86, %c64 : index
      %89 = arith.ori %87, %88 : i1
      scf.if %89 {
        linalg.fill ins(%cst : f16) outs(%alloc : memref<32x64xf16>)
      } {hivm.unlikely_condition}
      %subview_7 = memref.subview %reinterpret_cast_6[0, 0] [%85, %86] [1, 1] : memref<32x64xf16, strided<[1, ?], offset: ?>> to memref<?x?xf16, strided<[1, ?], offset: ?>>
      %subview_8 = memref.subview %alloc[0, 0] [%85, %86] [1, 1] : memref<32x64xf16> to memref<?x?xf16, strided<[64, 1]>>
      memref.copy %subview_7, %subview_8 : memref<?x?xf16, strided<[1, ?], offset: ?>> to memref<?x?xf16, strided<[64, 1]>>
      annotation.mark %alloc {MayImplicitTransposeWithLastAxis} : memref<32x64xf16>
      %90 = bufferization.to_tensor %alloc restrict writable : memref<32x64xf16>
      annotation.mark %90 {MayImplicitTransposeWithLastAxis} : tensor<32x64xf16>
      %91 = linalg.matmul {input_precison = "ieee"} ins(%73, %90 : tensor<64x32xf16>, tensor<32x64xf16>) outs(%arg28 : tensor<64x64xf32>) -> tensor<64x64xf32>
      scf.yield %91 : tensor<64x64xf32>
    }
    %39 = arith.index_cast %8 : i32 to index
    %40 = arith.index_cast %arg7 : i32 to index
    %41 = arith.muli %39, %40 : index
    %42 = arith.addi %41, %35 : index
    %reinterpret_cast = memref.reinterpret_cast %arg5 to offset: [%42], sizes: [64, 64], strides: [%40, 1] : memref<?xf16> to memref<64x64xf16, strided<[?, 1], offset: ?>>
    %43 = arith.truncf %38 : tensor<64x64xf32> to tensor<64x64xf16>
    %44 = arith.addi %39, %c64 : index
    %45 = arith.index_cast %arg6 : i32 to index
    %46 = arith.maxsi %39, %45 : index
    %47 = arith.minsi %44, %46 : index
    %48 = arith.subi %47, %39 : index
    %49 = arith.addi %35, %c64 : index
    %50 = arith.maxsi %35, %40 : index
    %51 = arith.minsi %49, %50 : index
    %52 = arith.subi %51, %35 : index
    %53 = arith.minsi %48, %c64 : index
    %54 = arith.minsi %52, %c64 : index
    %extracted_slice = tensor.extract_slice %43[0, 0] [%53, %54] [1, 1] : tensor<64x64xf16> to tensor<?x?xf16>
    %subview = memref.subview %reinterpret_cast[0, 0] [%53, %54] [1, 1] : memref<64x64xf16, strided<[?, 1], offset: ?>> to memref<?x?xf16, strided<[?, 1], offset: ?>>
    bufferization.materialize_in_destination %extracted_slice in writable %subview : (tensor<?x?xf16>, memref<?x?xf16, strided<[?, 1], offset: ?>>) -> ()
    return
  }
}
