// conv2d_kernel, 3x3 in fp16, lowered for Ascend910B2 by the front end of triton-ascend 3.2.0
// made from code b33de3cdc31f by python -m deskocr_kit.kernel_evidence.shown
#map = affine_map<(d0) -> (d0)>
module {
  func.func @conv2d_kernel(%arg0: memref<?xi8>, %arg1: memref<?xi8>, %arg2: memref<?xf16> {tt.tensor_kind = 0 : i32}, %arg3: memref<?xf16> {tt.tensor_kind = 0 : i32}, %arg4: memref<?xf16>, %arg5: memref<?xf16> {tt.tensor_kind = 1 : i32}, %arg6: i32, %arg7: i32, %arg8: i32, %arg9: i32, %arg10: i32, %arg11: i32, %arg12: i32, %arg13: i32, %arg14: i32, %arg15: i32, %arg16: i32, %arg17: i32, %arg18: i32, %arg19: i32, %arg20: i32, %arg21: i32, %arg22: i32, %arg23: i32, %arg24: i32, %arg25: i32, %arg26: i32) attributes {SyncBlockLockArgIdx = 0 : i64, WorkspaceArgIdx = 1 : i64, global_kernel = "local", mix_mode = "mix", parallel_mode = "simd"} {
    %c64_i32 = arith.constant 64 : i32
    %c3_i32 = arith.constant 3 : i32
    %c9_i32 = arith.constant 9 : i32
    %c0_i32 = arith.constant 0 : i32
    %c32_i32 = arith.constant 32 : i32
    %cst = arith.constant 0.000000e+00 : f16
    %c32 = arith.constant 32 : index
    %c64 = arith.constant 64 : index
    %c1 = arith.constant 1 : index
    %c0 = arith.constant 0 : index
    %cst_0 = arith.constant 0.000000e+00 : f32
    %0 = tensor.empty() : tensor<64x64xf32>
    %1 = linalg.fill ins(%cst_0 : f32) outs(%0 : tensor<64x64xf32>) -> tensor<64x64xf32>
    %2 = tensor.empty() : tensor<64x32xf16>
    %3 = linalg.fill ins(%cst : f16) outs(%2 : tensor<64x32xf16>) -> tensor<64x32xf16>
    %4 = tensor.empty() : tensor<32xi32>
    %5 = linalg.fill ins(%c9_i32 : i32) outs(%4 : tensor<32xi32>) -> tensor<32xi32>
    %6 = tensor.empty() : tensor<64x32xi32>
    %7 = linalg.fill ins(%c0_i32 : i32) outs(%6 : tensor<64x32xi32>) -> tensor<64x32xi32>
    %8 = linalg.fill ins(%c3_i32 : i32) outs(%4 : tensor<32xi32>) -> tensor<32xi32>
    %9 = arith.muli %arg24, %c64_i32 : i32
    %10 = tensor.empty() : tensor<64xi32>
    %11 = linalg.generic {indexing_maps = [#map], iterator_types = ["parallel"]} outs(%10 : tensor<64xi32>) {
    ^bb0(%out: i32):
      %65 = linalg.index 0 : index
      %66 = arith.index_cast %65 : index to i32
      linalg.yield %66 : i32
    } -> tensor<64xi32>
    %12 = linalg.fill ins(%9 : i32) outs(%10 : tensor<64xi32>) -> tensor<64xi32>
    %13 = arith.addi %12, %11 : tensor<64xi32>
    %14 = arith.muli %arg25, %c64_i32 : i32
    %15 = arith.muli %arg11, %arg12 : i32
    %16 = linalg.fill ins(%15 : i32) outs(%10 : tensor<64xi32>) -> tensor<64xi32>
    %17 = arith.divsi %13, %16 : tensor<64xi32>
    %18 = linalg.fill ins(%arg12 : i32) outs(%10 : tensor<64xi32>) -> tensor<64xi32>
    %19 = arith.divsi %13, %18 : tensor<64xi32>
    %20 = linalg.fill ins(%arg11 : i32) outs(%10 : tensor<64xi32>) -> tensor<64xi32>
    %21 = arith.remsi %19, %20 : tensor<64xi32>
    %22 = linalg.fill ins(%arg13 : i32) outs(%10 : tensor<64xi32>) -> tensor<64xi32>
    %23 = arith.muli %21, %22 : tensor<64xi32>
    %24 = linalg.fill ins(%arg15 : i32) outs(%10 : tensor<64xi32>) -> tensor<64xi32>
    %25 = arith.subi %23, %24 : tensor<64xi32>
    %26 = arith.remsi %13, %18 : tensor<64xi32>
    %27 = linalg.fill ins(%arg14 : i32) outs(%10 : tensor<64xi32>) -> tensor<64xi32>
    %28 = arith.muli %26, %27 : tensor<64xi32>
    %29 = linalg.fill ins(%arg16 : i32) outs(%10 : tensor<64xi32>) -> tensor<64xi32>
    %30 = arith.subi %28, %29 : tensor<64xi32>
    %31 = linalg.generic {indexing_maps = [#map], iterator_types = ["parallel"]} outs(%4 : tensor<32xi32>) {
    ^bb0(%out: i32):
      %65 = linalg.index 0 : index
      %66 = arith.index_cast %65 : index to i32
      linalg.yield %66 : i32
    } -> tensor<32xi32>
    %broadcasted = linalg.broadcast ins(%25 : tensor<64xi32>) outs(%6 : tensor<64x32xi32>) dimensions = [1] 
    %broadcasted_1 = linalg.broadcast ins(%30 : tensor<64xi32>) outs(%6 : tensor<64x32xi32>) dimensions = [1] 
    %32 = linalg.fill ins(%arg6 : i32) outs(%10 : tensor<64xi32>) -> tensor<64xi32>
    %33 = arith.cmpi slt, %13, %32 : tensor<64xi32>
    %34 = linalg.fill ins(%arg8 : i32) outs(%4 : tensor<32xi32>) -> tensor<32xi32>
    %35 = tensor.empty() : tensor<64x32xi1>
    %broadcasted_2 = linalg.broadcast ins(%33 : tensor<64xi1>) outs(%35 : tensor<64x32xi1>) dimensions = [1] 
    %36 = linalg.fill ins(%arg9 : i32) outs(%6 : tensor<64x32xi32>) -> tensor<64x32xi32>
    %37 = linalg.fill ins(%arg10 : i32) outs(%6 : tensor<64x32xi32>) -> tensor<64x32xi32>
    %expanded = tensor.expand_shape %17 [[0, 1]] output_shape [64, 1] : tensor<64xi32> into tensor<64x1xi32>
    %38 = tensor.empty() : tensor<64x1xi32>
    %39 = linalg.fill ins(%arg17 : i32) outs(%38 : tensor<64x1xi32>) -> tensor<64x1xi32>
    %40 = arith.muli %expanded, %39 : tensor<64x1xi32>
    %41 = tensor.empty() : tensor<1x32xi32>
    %42 = linalg.fill ins(%arg18 : i32) outs(%41 : tensor<1x32xi32>) -> tensor<1x32xi32>
    %collapsed = tensor.collapse_shape %40 [[0, 1]] : tensor<64x1xi32> into tensor<64xi32>
    %broadcasted_3 = linalg.broadcast ins(%collapsed : tensor<64xi32>) outs(%6 : tensor<64x32xi32>) dimensions = [1] 
    %43 = linalg.fill ins(%arg19 : i32) outs(%6 : tensor<64x32xi32>) -> tensor<64x32xi32>
    %44 = linalg.fill ins(%arg20 : i32) outs(%6 : tensor<64x32xi32>) -> tensor<64x32xi32>
    %45 = arith.index_cast %14 : i32 to index
    %46 = arith.index_cast %arg8 : i32 to index
    %47 = arith.muli %45, %46 : index
    %48 = scf.for %arg27 = %c0_i32 to %arg8 step %c32_i32 iter_args(%arg28 = %1) -> (tensor<64x64xf32>)  : i32 {
      %65 = linalg.fill ins(%arg27 : i32) outs(%4 : tensor<32xi32>) -> tensor<32xi32>
      %66 = arith.addi %65, %31 : tensor<32xi32>
      %67 = arith.divsi %66, %8 : tensor<32xi32>
      %68 = arith.remsi %67, %8 : tensor<32xi32>
      %broadcasted_4 = linalg.broadcast ins(%68 : tensor<32xi32>) outs(%6 : tensor<64x32xi32>) dimensions = [0] 
      %69 = arith.addi %broadcasted, %broadcasted_4 : tensor<64x32xi32>
      %70 = arith.remsi %66, %8 : tensor<32xi32>
      %broadcasted_5 = linalg.broadcast ins(%70 : tensor<32xi32>) outs(%6 : tensor<64x32xi32>) dimensions = [0] 
      %71 = arith.addi %broadcasted_1, %broadcasted_5 : tensor<64x32xi32>
      %72 = arith.cmpi slt, %66, %34 : tensor<32xi32>
      %broadcasted_6 = linalg.broadcast ins(%72 : tensor<32xi1>) outs(%35 : tensor<64x32xi1>) dimensions = [0] 
      %73 = arith.andi %broadcasted_2, %broadcasted_6 : tensor<64x32xi1>
      %74 = arith.cmpi sge, %69, %7 : tensor<64x32xi32>
      %75 = arith.andi %73, %74 : tensor<64x32xi1>
      %76 = arith.cmpi slt, %69, %36 : tensor<64x32xi32>
      %77 = arith.andi %75, %76 : tensor<64x32xi1>
      %78 = arith.cmpi sge, %71, %7 : tensor<64x32xi32>
      %79 = arith.andi %77, %78 : tensor<64x32xi1>
      %80 = arith.cmpi slt, %71, %37 : tensor<64x32xi32>
      %81 = arith.andi %79, %80 : tensor<64x32xi1>
      %82 = arith.divsi %66, %5 : tensor<32xi32>
      %expanded_7 = tensor.expand_shape %82 [[0, 1]] output_shape [1, 32] : tensor<32xi32> into tensor<1x32xi32>
      %83 = arith.muli %expanded_7, %42 : tensor<1x32xi32>
      %collapsed_8 = tensor.collapse_shape %83 [[0, 1]] : tensor<1x32xi32> into tensor<32xi32>
      %broadcasted_9 = linalg.broadcast ins(%collapsed_8 : tensor<32xi32>) outs(%6 : tensor<64x32xi32>) dimensions = [0] 
      %84 = arith.addi %broadcasted_3, %broadcasted_9 : tensor<64x32xi32>
      %85 = arith.muli %69, %43 : tensor<64x32xi32>
      %86 = arith.addi %84, %85 : tensor<64x32xi32>
      %87 = arith.muli %71, %44 : tensor<64x32xi32>
      %88 = arith.addi %86, %87 : tensor<64x32xi32>
      %89 = arith.select %81, %88, %7 : tensor<64x32xi1>, tensor<64x32xi32>
      %90 = scf.for %arg29 = %c0 to %c64 step %c1 iter_args(%arg30 = %2) -> (tensor<64x32xf16>) {
        %110 = scf.for %arg31 = %c0 to %c32 step %c1 iter_args(%arg32 = %arg30) -> (tensor<64x32xf16>) {
          %extracted = tensor.extract %89[%arg29, %arg31] {DiscreteMemAccess} : tensor<64x32xi32>
          %111 = arith.index_cast %extracted : i32 to index
          %reinterpret_cast_13 = memref.reinterpret_cast %arg2 to offset: [%111], sizes: [1], strides: [1] : memref<?xf16> to memref<1xf16, strided<[1], offset: ?>>
          %112 = memref.load %reinterpret_cast_13[%c0] : memref<1xf16, strided<[1], offset: ?>>
          %inserted = tensor.insert %112 into %arg32[%arg29, %arg31] : tensor<64x32xf16>
          scf.yield {DiscreteMemAccess} %inserted : tensor<64x32xf16>
        } {ExtractedLoadOrStore}
        scf.yield %110 : tensor<64x32xf16>
      } {ExtractedLoadOrStore}
      %91 = arith.select %81, %90, %3 : tensor<64x32xi1>, tensor<64x32xf16>
      %92 = arith.index_cast %arg27 : i32 to index
      %93 = arith.addi %92, %47 : index
      %reinterpret_cast_10 = memref.reinterpret_cast %arg3 to offset: [%93], sizes: [32, 64], strides: [1, %46] : memref<?xf16> to memref<32x64xf16, strided<[1, ?], offset: ?>>
      %alloc = memref.alloc() : memref<32x64xf16>
      %94 = arith.addi %92, %c32 : index
      %95 = arith.maxsi %92, %46 : index
      %96 = arith.minsi %94, %95 : index
      %97 = arith.subi %96, %92 : index
      %98 = arith.addi %45, %c64 : index
      %99 = arith.index_cast %arg7 : i32 to index
      %100 = arith.maxsi %45, %99 : index
      %101 = arith.minsi %98, %100 : index
      %102 = arith.subi %101, %45 : index
      %103 = arith.minsi %97, %c32 : index
      %104 = arith.minsi %102, %c64 : index
      %105 = arith.cmpi slt, %103, %c32 : index
      %106 = arith.cmpi slt, %104, %c64 : index
      %107 = arith.ori %105, %106 : i1
      scf.if %107 {
        linalg.fill ins(%cst : f16) outs(%alloc : memref<32x64xf16>)
      } {hivm.unlikely_condition}
      %subview_11 = memref.subview %reinterpret_cast_10[0, 0] [%103, %104] [1, 1] : memref<32x64xf16, strided<[1, ?], offset: ?>> to memref<?x?xf16, strided<[1, ?], offset: ?>>
      %subview_12 = memref.subview %alloc[0, 0] [%103, %104] [1, 1] : memref<32x64xf16> to memref<?x?xf16, strided<[64, 1]>>
      memref.copy %subview_11, %subview_12 : memref<?x?xf16, strided<[1, ?], offset: ?>> to memref<?x?xf16, strided<[64, 1]>>
      annotation.mark %alloc {MayImplicitTransposeWithLastAxis} : memref<32x64xf16>
      %108 = bufferization.to_tensor %alloc restrict writable : memref<32x64xf16>
      annotation.mark %108 {MayImplicitTransposeWithLastAxis} : tensor<32x64xf16>
      %109 = linalg.matmul {input_precison = "ieee"} ins(%91, %108 : tensor<64x32xf16>, tensor<32x64xf16>) outs(%arg28 : tensor<64x64xf32>) -> tensor<64x64xf32>
      scf.yield %109 : tensor<64x64xf32>
    }
    %49 = arith.index_cast %9 : i32 to index
    %50 = arith.index_cast %arg7 : i32 to index
    %51 = arith.muli %49, %50 : index
    %52 = arith.addi %51, %45 : index
    %reinterpret_cast = memref.reinterpret_cast %arg5 to offset: [%52], sizes: [64, 64], strides: [%50, 1] : memref<?xf16> to memref<64x64xf16, strided<[?, 1], offset: ?>>
    %53 = arith.truncf %48 : tensor<64x64xf32> to tensor<64x64xf16>
    %54 = arith.addi %49, %c64 : index
    %55 = arith.index_cast %arg6 : i32 to index
    %56 = arith.maxsi %49, %55 : index
    %57 = arith.minsi %54, %56 : index
    %58 = arith.subi %57, %49 : index
    %59 = arith.addi %45, %c64 : index
    %60 = arith.maxsi %45, %50 : index
    %61 = arith.minsi %59, %60 : index
    %62 = arith.subi %61, %45 : index
    %63 = arith.minsi %58, %c64 : index
    %64 = arith.minsi %62, %c64 : index
    %extracted_slice = tensor.extract_slice %53[0, 0] [%63, %64] [1, 1] : tensor<64x64xf16> to tensor<?x?xf16>
    %subview = memref.subview %reinterpret_cast[0, 0] [%63, %64] [1, 1] : memref<64x64xf16, strided<[?, 1], offset: ?>> to memref<?x?xf16, strided<[?, 1], offset: ?>>
    bufferization.materialize_in_destination %extracted_slice in writable %subview : (tensor<?x?xf16>, memref<?x?xf16, strided<[?, 1], offset: ?>>) -> ()
    return
  }
}
